"""The web page of the recogniser. Only this package imports Gradio."""
