"""What the help desk has written down."""

ARTICLES = [
    "Refunds reach your bank account within five working days after we have confirmed them.",
    "Invoices are under Account, Invoices; they are made on the first day of each month.",
    "A parcel that is lost is sent again at no cost; report it within thirty days.",
    "Passwords are reset on the sign-in page; the link that we send is valid for an hour.",
    "An order can be cancelled until it is packed, which the page of the order says.",
    "We deliver to every country of the European Union, to Norway and to Switzerland.",
]
