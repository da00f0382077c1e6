"""Is the student better than its base, and as good as its teacher?

Measured on conversations that none of them was trained on.
"""
