"""What a run says to people: figures, pictures, and one page that shows and questions them."""
