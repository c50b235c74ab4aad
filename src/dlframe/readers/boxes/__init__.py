"""Readers of annotated images: COCO, Pascal VOC, YOLO, KITTI and BDD100K."""
