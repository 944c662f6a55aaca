"""The Streamlit dashboard. Nothing is built here yet; the name is part of the distribution."""
