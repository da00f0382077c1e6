"""The teacher's token distribution: how rows keep it, how it is aligned with a student's tokens, what is trained."""
