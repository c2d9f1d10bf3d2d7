"""Fine-tuning: options, methods, tasks, and what a run writes."""
