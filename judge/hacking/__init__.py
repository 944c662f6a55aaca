"""Reward hacking: what a candidate does more of, how much of its win that explains, and what a judge can be sold."""
