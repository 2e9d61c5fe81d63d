module github.com/carillon-go/carillon/icalendar

go 1.26.0

require (
	github.com/stretchr/testify v1.12.1
	github.com/teambition/rrule-go v1.8.2
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect
