"""Fine-tuning: data, methods, the loop, what it saves."""
