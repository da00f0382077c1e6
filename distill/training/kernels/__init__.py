"""Numerical code that training puts in place of parts of torch and transformers."""
