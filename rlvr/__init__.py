"""Post-training of language models with GRPO and verifiable rewards."""
