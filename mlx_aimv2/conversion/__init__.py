"""Checkpoints converted, exported to other layouts, and fused with adapters."""
