"""Learning from preferences and rewards: PFIT's and PWFF's mathematics and tools."""
