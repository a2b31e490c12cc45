"""What experiments share: numbers that are no model's, and the way from a kind of data to a task.

An experiment file stays the one place of its model. Here is what would be the same in all of them.
"""
