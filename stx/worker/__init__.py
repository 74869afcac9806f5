"""The program that runs one attempt of one stage."""
