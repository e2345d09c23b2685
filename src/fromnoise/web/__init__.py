"""The pages that fromnoise serves, and what keeps strangers out of them."""
