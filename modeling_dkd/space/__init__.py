"""The page on which people try DKD on clips of their own."""
