module pixel-ping

go 1.26
