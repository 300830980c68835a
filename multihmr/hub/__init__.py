"""Model names to models: releases, checkpoints, official checkpoints, the Hugging Face Hub."""
