"""Songs to sound and metadata, sound to codes. Import the modules of this package directly."""
