"""Looking at runs and at what layers do: figures, maps, flows."""
