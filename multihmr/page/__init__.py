"""The demo page: what it shows (app), on which address (serving), what it keeps of whom (visits, films)."""
