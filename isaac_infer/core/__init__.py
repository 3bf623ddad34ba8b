"""Arrays in, arrays out: everything between a picture and a result, without ROS and without a GPU."""
