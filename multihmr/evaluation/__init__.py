"""Numbers: how well people are found and rebuilt (`benchmark`), and how fast (`speed`)."""
