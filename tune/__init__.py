"""Preference data and DPO candidates. Nothing is built here yet; the name is part of the distribution."""
