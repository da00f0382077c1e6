"""The misbehaving server of `distill.testing`, under the name the tests know it by."""

from distill.testing import Asked, FaultyServer, Reply, completion, echo

__all__ = ["Asked", "FaultyServer", "Reply", "completion", "echo"]
