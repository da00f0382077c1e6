"""From transcripts to verified training examples."""
