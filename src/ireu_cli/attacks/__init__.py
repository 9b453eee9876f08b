"""What somebody would try who wants a removed person back."""
