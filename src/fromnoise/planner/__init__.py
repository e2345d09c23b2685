"""What a run will take, and what there is to take it with."""
