"""The server: the page and an HTTP API in one process. It needs the extra [serve]; the page needs [page]."""
