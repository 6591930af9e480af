"""The page: what a browser shows of the recogniser. Only this package imports Gradio."""
