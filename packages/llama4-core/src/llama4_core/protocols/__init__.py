"""What crosses the border between packages: masks, problems, plans, routings, weights, states.

Everything here imports without torch.
"""
