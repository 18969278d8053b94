"""Songs to sound and facts, sound to codes. Import the modules of this package directly."""
