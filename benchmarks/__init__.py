"""The goals in figures: each a ratio of two things measured in turn, in one run, on one machine."""
