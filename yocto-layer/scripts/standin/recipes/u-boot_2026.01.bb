SUMMARY = "Stands in for the recipe that a bbappend is for"
LICENSE = "CLOSED"
