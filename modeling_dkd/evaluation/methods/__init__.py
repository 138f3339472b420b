"""DKD and the methods it is measured against: each takes a `Task` and returns logits of its test clips."""
