"""One file per room; each registers its cases with `@case(name)`."""
