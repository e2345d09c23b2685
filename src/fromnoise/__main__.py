"""`python -m fromnoise`, which is also what `torchrun -m fromnoise` starts."""

from fromnoise.cli import main

if __name__ == "__main__":
    main()
