"""Who transmits in a round, with how much bandwidth and how many bits."""
