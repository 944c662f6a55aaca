"""Preference data, DPO candidates and the loop that closes over them; acts on what ``judge`` found."""
