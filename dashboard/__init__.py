"""The Streamlit dashboard; see the changelog for what is here yet."""
