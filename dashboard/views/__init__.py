"""Pure views: frames and values in, tables and Vega-Lite specifications out. Nothing here knows Streamlit or a file."""
