"""Reading what others have written: stores at paths and URLs, lazy arrays, coordinates."""
