"""What people hold: folders, tables and files of images, video, boxes and text."""
