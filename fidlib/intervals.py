"""How sure a measure is: intervals over images, by scipy."""
