"""Preference data and DPO candidates; see the changelog for what is here yet."""
