"""What a report tells readers who look at no table: a manager, the person who asked, an auditor."""
