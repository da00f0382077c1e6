"""From the segments of a conversation to token ids and who wrote each of them."""
