"""Systems on collections: `retriever bench`, what it keeps, and the page it makes."""
