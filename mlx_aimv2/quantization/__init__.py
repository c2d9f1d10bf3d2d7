"""Quantized weights: schemes, recipes, and GPTQ calibration."""
