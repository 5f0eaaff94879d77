"""`python -m kvbudget` is the same as `kvbudget`."""

from kvbudget.cli import main

if __name__ == "__main__":
    main()
