"""What a study is on disk, and the loop that carries decisions out."""
