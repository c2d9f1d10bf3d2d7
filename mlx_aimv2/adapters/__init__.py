"""Adapters: small trained matrices beside frozen weights (LoRA, DoRA), on disk in PEFT's format."""
